"""Keys of principals of tenants, and what principals may do."""

from llmos.security.authorizer import RoleAuthorizer
from llmos.security.config import SecurityConfig
from llmos.security.keys import Keys

__all__ = ["Keys", "RoleAuthorizer", "SecurityConfig"]
