"""What `${…}` in a process means: references, expressions and text around them.

`${tasks.load.rows}` is a plain reference, which costs a few dictionary look-ups. Anything else between the braces is an
expression in CEL. A string that is one `${…}` keeps the type of the value; in a longer string the value becomes text.
`$${` stands for the characters `${`.

Where things are: `reference` finds a value by its place and explains why it is not there; `syntax` finds references
and braces in text; `cel` computes; `nodes` is the rest: what strings, arguments and conditions are parsed into, and
back to values. Nodes are tuples: small, immutable, picklable, and equal when they mean the same.
"""

from comagent.expressions.nodes import (
    MAX_LENGTH,
    Expression,
    Interpolation,
    Template,
    condition,
    evaluate,
    evaluate_condition,
    is_constant,
    parse,
    references,
    resolve,
    template,
)
from comagent.expressions.reference import ROOTS, Reference, Scope

__all__ = [
    "MAX_LENGTH",
    "ROOTS",
    "Expression",
    "Interpolation",
    "Reference",
    "Scope",
    "Template",
    "condition",
    "evaluate",
    "evaluate_condition",
    "is_constant",
    "parse",
    "references",
    "resolve",
    "template",
]
