"""Design spaces: how a learned meta-policy expresses a plan; one file each, on the laws of ``base``.

Every space samples a choice from network outputs, scores it (log-probability and the entropy of the law that it was
drawn from), and turns it into a plan; gradient learners need nothing else. Search needs ``propose``, a random choice,
and ``vary``, one that is a little different. ``from_template`` gives supervised starts a choice that builds a template,
and ``explain`` says a choice in words. ``language`` is what the programs of ``script`` are written in.
"""
