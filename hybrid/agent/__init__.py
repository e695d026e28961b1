"""What `hybrid apply`, `status` and `clean` do: desired state, plan, apply, undo."""
