"""The kill switch and the state of a ledger over HTTP; it loads neither torch nor Ray."""
