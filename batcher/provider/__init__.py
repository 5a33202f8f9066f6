"""The API over HTTP: create, read, profile, and the audio itself. The only importer of httpx.

`client` sends, `endpoint` says where to, `pool` over which connections, `exchange` how far a request got; `ping` tells
a monitor. What the answers mean is in `batcher.provider.answers`, whose names are to be had from here as well.
"""

from batcher.provider.answers import Answer, ApiError, Cause, Fetched, Phase, Profile, ProfileAnswer, SchemaAnswer, Task
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint

__all__ = [
    "Answer",
    "ApiError",
    "Cause",
    "Client",
    "Endpoint",
    "Fetched",
    "Phase",
    "Profile",
    "ProfileAnswer",
    "SchemaAnswer",
    "Task",
]
