"""The sentences of conclusion in docs/studies.md: written by hand, of what bench/studies.py measured. Lines
that do not begin a list go on with the one before."""

CONCLUSIONS = {
    "summary": """\
- **Leave alone:** mode `forecast`, filter `off`, granularity `stack`, protect_first 2, protect_last 1,
and a profile that was calibrated with another prompt, step count, sampler, scheduler or size.
- **Leave max_consecutive at 0**, which takes 3 where 2 leaves no step to spare, as with 60 % of 25 or 30
steps, else 2, and 1 where that leaves one, up to 40 % (docs/experiments.md). Where it takes 3 it gains up
to 8 dB in eleven of thirteen cases (the table *Steps to spare*) and loses in two: images at 20 steps a
little, at 64 % of 50 steps 6 dB.
- **Without a profile,** take the cost `reach` (docs/plans.md). With `even`, set protect_last to 3, but not
with the scheduler karras: 3 to 11 dB (images) and 8 dB (videos).
- **Rather lower the budget:** 60 % of 25 steps of dpmpp_2m is 10 (images) to 15 dB (videos) below 50 %,
more than any setting here gives back.
- **Calibrate with `samples` 4** (or a batch): of three profiles of one sample, one was 7.6 dB worse than
the others.""",
    "filters": """\
The paper's pair of filters does not pay: low-pass first and high-pass later loses 1 to 2 dB (images) and
0.6 dB (videos) against no filter in mode `paper`, and 4 to 14 dB in `age-aware`, whose gammas were
fitted to the whole noise. In mode `paper` a low-pass all along gains 1 to 3 dB (cutoff 0.35, images; 2
dB at 0.25, videos) and a later switch (0.7) about 1 dB with Euler, but with 50 Euler steps that stays 7
to 11 dB behind `age-aware` without a filter. Gains for each band are within chance of one common gain.
The forecast, which takes no filter, is best in three of the four columns.""",
    "over time": """\
Nothing is gained: frequencies over time, height and width change the result by 0.8 dB at most, in either
direction, and with gains for each band by less than 0.1. So a video is filtered frame by frame, without
an option.""",
    "sound": """\
No trained audio model was at hand, so this says what the filters do, not what they gain. A latent of
Stable Audio is (channels, length), and frequencies used to be taken over both: a low-pass smeared each
channel into its neighbours, which have no order, and the bands of a profile mixed both axes. Now they
are taken along time alone (tests/unit/test_spectrum_and_axis.py). ACE-Step's (channels, 16, length) is
filtered as a picture of pitch over time. Hunyuan3D's (channels, tokens) has tokens without an order:
leave its filter off.""",
    "granularity": """\
Leave it at `stack`: branches are within 1.5 dB of it, in either direction, and keep 9 times (images) and
15 times (videos) as much. The CPU seconds, of one thread, were taken beside other work, so they say no
more than that branches take about a quarter longer on images.""",
    "guidance": """\
With one gamma for both lanes it makes no difference whether the noise is taken out before or after
guidance, for guidance is linear, as filters are (measured: equal to 0.001 dB); only what bends guidance,
such as a rescaled cfg, would tell them apart. A gamma of each lane's own wins once (3.4 dB; images, 60
%) and is within chance elsewhere. One gamma that is fitted to the guided noise loses everywhere, 0.7 to
3.1 dB. A forecast of the guided output, for which the model would not be run at all at reused steps, is
within chance of the default's forecast of each lane's residual (-0.0 to +0.7 dB) and keeps only latents;
but the present state and whatever changes between the steps then play no part in a reused one.""",
    "constraints": """\
max_consecutive 2 is best or within chance wherever it leaves more than one step to spare; with 50 steps
4 and 6 lose 2 to 12 dB where they change the plan. protect_last matters at 70 % only, for up to 60 % the
plan leaves the last steps alone by itself. protect_first 3 or 4 helps images at 50 % (0.6 to 4.3 dB) and
harms videos there (1 to 5 dB), and at 60 % it takes the room away that the plan needs, which costs up to
8 dB (images) and, with 5, 11 dB (videos). Order 1 is better by more than 1.5 dB only at 70 % of 25 or 30
steps, where both fail.""",
    "room": """\
*Steps to spare*: how many more steps this max_consecutive would allow to reuse. *One more*: with a
max_consecutive greater by one. With none to spare and 25 or 30 steps the longer runs win on both models
and with every sampler, by up to 8 dB; with 20 and with 50 steps they win 7 dB on videos and lose on
images. With 3 or more to spare they never win.""",
    "transfer": """\
Profiles may be used elsewhere: those of other step counts, samplers, schedulers and sizes are within 3.5
dB of the matching one, above it as often as below, but for one case (videos, 30 steps, 60 %: 5 dB
below); `age-aware`, which takes its gammas from the profile too, is within 3 dB. At 50 % all are 2 to 20
dB above `even`, which needs none. Single prompts scatter more than that (53.1 to 61.1 dB; images, 60 %),
and four samples even it out; on videos at 60 % nearly every profile led to the same plan, two steps
reused of each three from the start. With 25 steps or fewer at 60 % there is but one plan with
max_consecutive 2, and no profile helps. Without any profile, protect_last 3 makes the most of `even`: 3
to 11 dB more on images at 50 %, 8 dB on videos at 60 %, with 25 and 30 steps level with the profile of
the pack or above it; only karras, whose last steps are short, loses by it (0.4 to 9 dB).""",
}
