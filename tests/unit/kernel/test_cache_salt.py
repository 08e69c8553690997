"""Under which salt a request's prompt is cached: its tenant's, whatever it asks for."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from llmos.abi.ids import new_id
from llmos.kernel.process import cache_salt

ONE, TWO = new_id("ten"), new_id("ten")
TENANTS = st.sampled_from([ONE, TWO, "default"])
WISHES = st.none() | st.text(max_size=128)


@given(TENANTS, WISHES, TENANTS, WISHES)
@example(ONE, None, TWO, ONE)
@example(ONE, "x", TWO, f"{ONE}/x")
@example(ONE, None, ONE, "")
def test_salts_are_equal_for_equal_tenants_and_wishes_only(
    tenant: str, wish: str | None, other: str, others: str | None
) -> None:
    same = cache_salt(tenant, wish) == cache_salt(other, others)
    assert same == ((tenant, wish) == (other, others))


def test_without_a_wish_it_is_the_tenant() -> None:
    assert cache_salt(ONE, None) == ONE
