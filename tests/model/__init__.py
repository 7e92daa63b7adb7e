"""The event algebra against a model of it, and against everything that is not a message."""

import pytest

pytest.register_assert_rewrite("tests.model.machine", "tests.model.stored")
