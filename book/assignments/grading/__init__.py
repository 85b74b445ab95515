"""The grader of the book's assignments: handed to teachers, never to students."""

from .here import here
from .rubric import Ask, Code, Kept, Line, Lost, Result, Rubric, Seed, expect

__all__ = ["Ask", "Code", "Kept", "Line", "Lost", "Result", "Rubric", "Seed", "expect", "here"]
