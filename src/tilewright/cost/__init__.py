"""What a schedule or a mapping will cost: traffic, time and energy, as formulas over ints, populations and tensors."""
