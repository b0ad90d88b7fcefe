"""One module per screen; `base.py` has what all of them share."""
