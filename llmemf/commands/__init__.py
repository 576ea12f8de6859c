"""The sub-commands of `llmemf`, one file each; they parse options, call the library, and print."""
