"""Processes as pictures: in text, as Mermaid, DOT or SVG."""
