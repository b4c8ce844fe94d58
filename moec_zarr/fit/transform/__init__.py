"""The search for a transform: bases, steps, integers and contexts, within bytes, an error or a bound."""
