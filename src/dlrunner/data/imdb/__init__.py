"""The Large Movie Review Dataset."""
