"""The document of the API, by a validator that others wrote. It takes seconds: unit tests have what
is quick.
"""

from __future__ import annotations

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from llmos.api.app import ROUTES
from llmos.api.openapi import document


def test_it_is_a_valid_document() -> None:
    OpenAPIV31SpecValidator(document(ROUTES)).validate()


def test_what_is_no_document_is_told_from_one() -> None:
    route = next(route for route in ROUTES if route.handler.__name__ == "readyz")
    broken = document([route])
    broken["paths"]["/readyz"]["get"]["responses"] = {"200": {}}
    with pytest.raises(OpenAPIValidationError):
        OpenAPIV31SpecValidator(broken).validate()
