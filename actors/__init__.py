"""Ray actors, imported as `comagent.actors`: they turn messages into calls on `comagent` and hold no policy.

This package imports nothing itself, so that `comagent.actors.names` costs no import of Ray.
"""
