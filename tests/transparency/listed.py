"""Which of redis-py's published tests fail with the guard, and why that is right.

What a published test expects of a server that is away is what the guard is there to change. Of a
server that is there, nothing differs but two names and what an ACL takes note of.
"""

from __future__ import annotations

AWAY = "Redis is away: the write is queued, as promised, and nothing is raised"
LOADING = (
    "a server that says LOADING is away; by the end of the test the breaker has opened, and the "
    "FLUSHDB of its clean-up is refused"
)
IN_EXEC = (
    "LOADING as a reply inside EXEC, which no server sends: the transaction has run, and "
    "OutcomeUnknown says that its replies are lost"
)
SUBSCRIBER = "a subscriber waits through an outage and is resubscribed: no ConnectionError"
NAME = "the test asks for the name of redis-py's own connection class"
ACL = (
    "this user may do nothing but GET and SET: what is asked of a new connection (CLIENT INFO, and "
    "which rights there are) stands in ACL LOG, too"
)

INNER = "the test puts a mock in a place of redis-py's inside that the guard does not come through"
BY_HAND = (
    "the test gives a PubSub its connection by hand, without the callback that tells the guard of "
    "a subscriber: a second PING before the reply to the first is taken for an abandoned command"
)
ASKED = "the test counts the replies of a handshake, which asks CLIENT INFO, too"

_POOL = "tests/test_asyncio/test_connection_pool.py::TestConnection::"
_PUBSUB = "tests/test_asyncio/test_pubsub.py::"
_CONNECTION = "tests/test_asyncio/test_connection.py::"

#: By node id, parameters left out.
LISTED = {
    _CONNECTION + "test_network_connection_failure": AWAY,
    _CONNECTION + "test_unix_socket_connection_failure": AWAY,
    _POOL + "test_busy_loading_disconnects_socket": LOADING,
    _POOL + "test_busy_loading_from_pipeline_immediate_command": LOADING,
    _POOL + "test_busy_loading_from_pipeline": IN_EXEC,
    _POOL + "test_connect_from_url_tcp": NAME,
    _POOL + "test_connect_from_url_unix": NAME,
    _PUBSUB + "TestPubSubRedisDown::test_channel_subscribe": SUBSCRIBER,
    _PUBSUB
    + "TestPubSubConnectionKilled::test_connection_error_raised_when_connection_dies": SUBSCRIBER,
    _PUBSUB + "TestPubSubAutoReconnect::test_reconnect_socket_error": SUBSCRIBER,
    "tests/test_asyncio/test_commands.py::TestRedisCommands::test_acl_log": ACL,
}
# Of the synchronous flavour the same tests, under the same names.
LISTED |= {
    nodeid.replace("tests/test_asyncio/", "tests/"): why
    for nodeid, why in LISTED.items()
    if "TestPubSubAutoReconnect" not in nodeid
}
_SOCKET = "tests/test_connection_pool.py::TestConnectionPoolUnixSocketURLParsing::"
LISTED |= {
    "tests/test_commands.py::TestRedisCommands::test_interrupted_command": INNER,
    "tests/test_connection_pool.py::TestHealthCheck::test_health_check_in_pubsub_poll": BY_HAND,
    _SOCKET + "test_default_config_client_executes_commands_without_maint_notifications": ASKED,
}


#: They wait without a limit for the ConnectionError that a subscriber is spared (SUBSCRIBER).
ENDLESS = ("tests/test_pubsub.py::TestPubSubAutoReconnect",)


def reason(nodeid: str) -> str | None:
    """Why `nodeid` may fail with the guard, if it may."""
    return LISTED.get(nodeid.partition("[")[0])
