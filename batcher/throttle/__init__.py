"""Learns the permitted concurrency and rate of requests. The rest of the package only asks a gate for a slot.

One gate per class of requests (create, poll, download) spaces starts by a learned rate and caps what is in flight by a
learned number. The API publishes neither, so both double until a request is refused. A refusal closes the gate for the
whole class, for `Retry-After` or a short back-off. When the gate opens again, the judge lowers the one limit that the
refusals speak against: the number in flight if that was full, or if successes always had fewer others in flight, else
the rate. The lowered limit remembers where it was refused as its ceiling, stays just below it for as long as another
refusal would cost more than it could gain, and then tries again.

`limit` holds one learned number, `closure` until when the class is closed, `spacing` when the next request may start,
`flights` what is in flight, `history` what succeeded lately, `judge` which limit a refusal lowers and to what; `gate`
puts them together.
"""
