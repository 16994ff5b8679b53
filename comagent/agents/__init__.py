"""Agents: named definitions of who does a task, with which tools, and what they may use."""

from comagent.agents.assignment import assigned
from comagent.agents.catalogue import Agents, load_agents
from comagent.agents.definition import Agent, AgentTool, Policy, parse_agent

__all__ = ["Agent", "AgentTool", "Agents", "Policy", "assigned", "load_agents", "parse_agent"]
