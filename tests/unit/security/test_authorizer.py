from __future__ import annotations

import pytest

from llmos.abi.principal import Action, Principal, Resource, Role
from llmos.errors import PermissionDenied
from llmos.security.authorizer import RoleAuthorizer

ADMIN = Principal("prn_1", "default", "admin", Role.ADMIN)
USER = Principal("prn_2", "ten_a", "zhang", Role.USER)
MINE = Resource("process", "req_1", "ten_a")
THEIRS = Resource("process", "req_2", "ten_b")
SHARED = Resource("model", "pilot:1")
USER_MAY = {
    *(Action.INFER, Action.READ_MODELS, Action.READ_PROCESSES, Action.CONTROL_PROCESSES),
    *(Action.SUBMIT_JOBS, Action.READ_FILES, Action.WRITE_FILES),
}


def _may(principal: Principal, action: Action, resource: Resource) -> bool:
    try:
        RoleAuthorizer().authorize(principal, action, resource)
    except PermissionDenied as error:
        assert error.message
        return False
    return True


@pytest.mark.parametrize("action", Action)
def test_every_action_for_every_role(action: Action) -> None:
    assert all(_may(ADMIN, action, resource) for resource in (MINE, THEIRS, SHARED))
    assert _may(USER, action, MINE) == _may(USER, action, SHARED) == (action in USER_MAY)
    assert not _may(USER, action, THEIRS)


def test_the_reason_is_said() -> None:
    with pytest.raises(PermissionDenied, match="another tenant"):
        RoleAuthorizer().authorize(USER, Action.CONTROL_PROCESSES, THEIRS)
    with pytest.raises(PermissionDenied, match=r"role user may not keys\.admin"):
        RoleAuthorizer().authorize(USER, Action.ADMIN_KEYS, SHARED)
