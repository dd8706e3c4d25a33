"""The ground on AWS, as its templates tell of it: synthesized once, asked by meaning."""
