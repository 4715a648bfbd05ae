"""Many cells: checked, ordered, measured in this process or others, resumed, replayed and matched in duels."""
