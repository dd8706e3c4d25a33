"""What `flows.workspace.git_client` overrides of dulwich and urllib3, so that every address is checked."""

import inspect

from dulwich.client import AbstractHttpGitClient, Urllib3HttpGitClient
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from flows.workspace import git_client
from tests.contracts.overriding import accepts_as, is_called_by, overridden_names


def test_every_request_of_dulwich_goes_through_the_method_that_counts_its_bytes() -> None:
    assert overridden_names(git_client.Client, Urllib3HttpGitClient) == {"__init__", "_http_request"}
    assert accepts_as(git_client.Client._http_request, Urllib3HttpGitClient._http_request)
    for method in ("_discover_references", "_smart_request"):
        assert "self._http_request(" in inspect.getsource(getattr(AbstractHttpGitClient, method))


def test_dulwich_connects_through_the_pool_that_it_is_given() -> None:
    parameters = inspect.signature(Urllib3HttpGitClient.__init__).parameters
    assert {"base_url", "pool_manager", "config", "quiet"} <= parameters.keys()
    assert "self.pool_manager.request(" in inspect.getsource(Urllib3HttpGitClient)


def test_dulwich_says_whether_the_server_is_dumb() -> None:
    assert is_called_by(AbstractHttpGitClient, "dumb")


def test_dulwich_asks_for_a_depth_and_for_what_is_wanted() -> None:
    parameters = inspect.signature(Urllib3HttpGitClient.fetch).parameters
    assert {"path", "target", "determine_wants", "depth"} <= parameters.keys()


def test_every_url_and_every_pool_of_urllib3_is_ours_to_check() -> None:
    assert overridden_names(git_client.CheckedPoolManager, PoolManager) == {
        "__init__",
        "urlopen",
        "_new_pool",
    }
    ours, theirs = (
        inspect.signature(git_client.CheckedPoolManager._new_pool),
        inspect.signature(PoolManager._new_pool),
    )
    assert list(ours.parameters) == list(theirs.parameters)
    assert list(inspect.signature(PoolManager.urlopen).parameters)[:3] == ["self", "method", "url"]
    # A redirect is another call of it.
    assert "self.urlopen(" in inspect.getsource(PoolManager.urlopen)


def test_a_pool_makes_its_connections_with_the_class_that_is_put_there() -> None:
    assert is_called_by(HTTPConnectionPool, "ConnectionCls(")


def test_connections_of_urllib3_open_their_socket_in_the_method_that_we_replace() -> None:
    for kind in (HTTPConnection, HTTPSConnection):
        assert "self._new_conn()" in inspect.getsource(kind.connect)
    assert list(inspect.signature(HTTPConnection._new_conn).parameters) == ["self"]
    assert issubclass(git_client._CheckedHTTPSConnection, HTTPSConnection)
    assert git_client._CheckedHTTPSConnection._new_conn is git_client._CheckedHTTPConnection._new_conn
