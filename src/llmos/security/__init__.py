"""Keys of principals of tenants, and what principals may do."""
