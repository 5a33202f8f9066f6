"""When a task is polled next: learned from how long earlier tasks took. Pure: no I/O and no clock."""
