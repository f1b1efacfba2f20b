"""The demonstration: real workers on real servers, one of them killed in mid-work."""
