# A package, unlike the other test folders: its tests import from its conftest, and there must be one `conftest` only.
