"""When to look at a task next.

`pacing` answers that; `durations` learns from finished tasks how long they take; `schedule` finds the best looks for
what was learned; `normal` is the distribution underneath; `due` holds the looks until their time. All of it is pure.
"""
