"""Jobs as ECS tasks, end to end: everything is real but AWS itself."""
