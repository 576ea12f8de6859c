"""What came out of a sweep: facts, what follows from them, and the page that shows both."""
