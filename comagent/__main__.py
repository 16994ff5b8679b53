"""`python -m comagent`"""

from comagent.cli import main

if __name__ == "__main__":
    main()
