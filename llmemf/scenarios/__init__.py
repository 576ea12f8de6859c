"""Two domains and their users' histories: the Scenario, its readers, its stored candidates and its audit."""
