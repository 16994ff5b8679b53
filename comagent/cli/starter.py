"""The files of a new project."""

PROCESS = """\
name: words
description: The most frequent words of a text, counted in two ways at the same time.

inputs:
  text: {type: string, default: to be or not to be that is the question}

defaults: {timeout: 30s, retry: {attempts: 3}}

tasks:
  - {id: words,   tool: "python:tools.count_words", with: {text: "${inputs.text}"}}
  - {id: letters, tool: "python:tools.count_letters", with: {text: "${inputs.text}"}}
  - id: report
    needs: [words, letters]
    tool: text.render
    with:
      template: |
        {% for word, number in words | dictsort(by="value", reverse=true) %}{{ word }}: {{ number }}
        {% endfor %}{{ letters }} letters in all
      values: {words: "${tasks.words}", letters: "${tasks.letters}"}

outputs: {report: "${tasks.report}"}
"""

TOOLS = '''\
"""Tools of this project. A process names them as `python:tools.count_words`."""

from collections import Counter

import comagent


@comagent.tool
def count_words(text: str, most: int = 5) -> dict[str, int]:
    """How often the most frequent words occur."""
    return dict(Counter(text.lower().split()).most_common(most))


@comagent.tool
def count_letters(text: str) -> int:
    """How many letters there are."""
    return sum(letter.isalpha() for letter in text)
'''

DRIVER = '''\
"""Runs the process from Python, with a text of its own."""

from pathlib import Path

import comagent

PROCESS = Path(__file__).with_name("process.yaml")

if __name__ == "__main__":
    with comagent.connect() as client:
        job = client.submit(PROCESS, inputs={"text": "the cat and the dog and the bird"})
        print(job.result(timeout=60)["report"])
'''

README = """\
# A ComAgent project

`process.yaml` says what runs after what, `tools.py` has the project's own tools, and `driver.py` runs the process from
Python.

```sh
comagent validate process.yaml
comagent graph process.yaml
comagent run process.yaml --input text="hello world, hello"
python driver.py
```
"""

IGNORED = """\
__pycache__/
.venv/
.comagent/
"""

FILES = {
    "process.yaml": PROCESS,
    "tools.py": TOOLS,
    "driver.py": DRIVER,
    "README.md": README,
    ".gitignore": IGNORED,
}
"""By name."""
