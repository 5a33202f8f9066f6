"""What the program reports to people, programs, monitors and the log, and in which form. Decides nothing."""
