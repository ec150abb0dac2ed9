"""``warehouse``: robots on a grid serve orders without end.

In the order of the data: ``grid`` draws and reads maps, ``problem`` reads problem files, ``params`` holds their
numbers; ``orders`` come and go, ``motion`` says where actions lead, ``moves`` who may go there; ``bits`` are maps that
are looked up fast, ``messages`` what robots tell each other, ``observe`` all that is seen; ``warehouse`` is the
environment of these, and ``scenarios`` names it. ``executors`` play, one of them by ``pibt``.
"""
