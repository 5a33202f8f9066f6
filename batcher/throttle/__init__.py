"""How the permitted concurrency and rate of requests are discovered; callers only ask a gate."""
