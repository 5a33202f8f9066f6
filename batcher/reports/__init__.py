"""What the program reports, and in which form: to people, to programs, to monitors and to the log; decides nothing."""
