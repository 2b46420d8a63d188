# From images with image-level tags to pseudo masks, a segmenter and a scored table.
#   snakemake --cores all                                                   the embedded demo
#   snakemake --cores all --configfile workflow/presets/voc-subset.yaml     a preset laid over config.yaml
include: "workflow/Snakefile"


# An included file sets no default target.
workflow.default_target = rules.all.rule.name
