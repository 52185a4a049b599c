"""How often the embedded models err, in one place. They err as real ones do, so that every check has work."""

# The language model
REPEAT = 0.12  # a listed description put into other words instead of a new one
SIBLING = 0.10  # a feature of the species that it is most easily taken for
NOT_IN_TEMPLATE = 0.06  # a line that is no description in Template 1
PREAMBLE = 0.6  # "Sure! Here are ..." before a list
OVERLOOKED = 0.15  # a repeat that the repetition check leaves in
OVERZEALOUS = 0.03  # an entry that the repetition check drops though nothing repeats it
INVENTED = 0.02  # an entry that the repetition check adds
STUBBORN = 0.15  # a refinement that changes nothing that matters

# The vision model (its other mistakes are its own: it sees through the small CLIP)
PROSE = 0.05  # a reply that forgets the template
TAGS = 4  # features that it tags, of the five that can be
CAPTIONED = 0.5  # of the features of a flower: that a caption names it
UNSURE = 0.03  # asked for the class, it declines to name one
SENTENCE = 0.3  # it answers in a sentence, though the name alone was asked for
ENGLISH = 0.15  # it says the English name
PLURAL = 0.3  # of English names: in the plural
LOWER_CASE = 0.2  # of all names

# The text-to-image model
IGNORED = 0.10  # a drawing that ignores one feature of its prompt
ASTRAY = 0.12  # a drawing that goes astray: of its prompt it keeps half the features or fewer
