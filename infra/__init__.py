"""The ground on AWS: settings, constructs by concern, and stacks that only compose."""
