raise AssertionError("a listing must not import what a contribution requires")
