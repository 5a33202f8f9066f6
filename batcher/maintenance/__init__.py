"""What an operator does to a ledger between runs, by a person's decision or to repair audio; never creates a task."""
