"""Names that settings choose among and stages tell apart; without torch, so that a wrong one is answered at once."""

AUTO = "auto"  # the setting that is chosen for the model and the machine at hand
START = "start"  # `lora.targets`: the layers of the LoRA that is gone on from, as its file names them
# kinds of models: name -> module and class in trainer/models, in the order in which they are asked
FAMILIES = {"flux1": "flux1.family:Flux1"}
# how rollouts become a loss: name -> module and class in trainer/objectives
OBJECTIVES = {
    "neighbor": "neighbor:Neighbor",
    "flow-grpo": "sde:FlowGrpo",
    "dance-grpo": "sde:DanceGrpo",
    "mix-grpo": "sde:MixGrpo",
    "nft": "nft:Nft",
}
PROBED = (0.1, 0.3, 0.5, 0.7, 1.0)  # strengths that a probe tries
RIVALS = tuple(name for name in OBJECTIVES if name != "neighbor")
REFERENCE = "reference"  # as the reference pipeline has it
STRATIFIED, CROSSED = PAIRINGS = ("stratified", "crossed")  # see `anchors.choose_pairs`
RANDOM, EARLY, LATE = STEP_CHOICES = ("random", "early", "late")  # see `anchors.choose_steps`
NEXT, CLEAN, END = DISTANCES = ("next", "clean", "end")  # see `neighbor.targets`
POLICY, VELOCITY, NORM = GUARDS = ("policy", "velocity", "norm")  # see `guards`
CLIP, KL = TRUSTS = ("clip", "kl")  # see `surrogate.clipped_objective`
GROUP, BATCH = SPREADS = ("group", "batch")  # see `combine.combine`
TEMPERATURE_MODES = ("scale-free", "element-mean", "raw")  # see `surrogate.softmax_temperature`
NORMALISATIONS = ("advantage", "raw")  # see `rewards.combine`
