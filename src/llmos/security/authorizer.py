"""What each role may do. Knows principals and resources, no requests."""

from __future__ import annotations

from llmos.abi.principal import Action, Principal, Resource, Role
from llmos.errors import PermissionDenied

RIGHTS: dict[Role, frozenset[Action]] = {
    Role.ADMIN: frozenset(Action),
    Role.USER: frozenset(
        {
            Action.INFER,
            Action.READ_MODELS,
            Action.READ_PROCESSES,
            Action.CONTROL_PROCESSES,
            Action.SUBMIT_JOBS,
            Action.READ_FILES,
            Action.WRITE_FILES,
        }
    ),
}
"""Actions by role. What is not listed is denied."""


class RoleAuthorizer:
    """Implements `abi.Authorizer`: the role must allow the action, and the owner must be one's own
    tenant unless one is an admin. Resources without an owner (`tenant_id` None) are shared.
    """

    def authorize(self, principal: Principal, action: Action, resource: Resource) -> None:
        """Raises PermissionDenied with the reason."""
        if action not in RIGHTS.get(principal.role, frozenset()):
            raise PermissionDenied(f"role {principal.role} may not {action}")
        if principal.role is Role.ADMIN or resource.tenant_id is None:
            return
        if resource.tenant_id != principal.tenant_id:
            raise PermissionDenied(f"this {resource.kind} belongs to another tenant")
