"""The sentences of conclusion in docs/studies.md: written by hand, of what bench/studies.py measured. Lines
that do not begin a list go on with the one before."""

CONCLUSIONS = {
    "summary": """\
- **Leave alone:** mode `forecast`, filter `off`, granularity `stack`, max_consecutive 0, protect_first 2,
protect_last 0 or 1, and a profile that was calibrated with another prompt, step count, sampler, scheduler or
size. Hardly anything here is better than they are by more than chance, and nothing on both models.
- **max_consecutive 0** takes runs of 3 where 2 would leave no step to spare, as with 60 % of 25 or 30 steps,
which gains 2 to 7.5 dB in ten of thirteen cases and loses 0.3 to 3 dB in three; and single steps where
they leave a choice, up to 40 %, which gains 0.5 to 8 dB on images, and on videos 1 to 2 dB with 20 to 25
steps but loses 1 to 2.4 dB with 30 and 50 (the table *Steps to spare*).
- **Without a profile,** take the cost `reach`: at 50 % it is level with a profile; at 60 % 0 to 8 dB below it
(images), 0 to 4 dB (videos). `even` is 3 to 20 dB below `reach` on images at 50 %.
- **Rather lower the budget:** 60 % of 25 steps of dpmpp_2m is 7 (images) and 5 dB (videos) below 50 %, more
than any setting here gives back.""",
    "filters": """\
The paper's pair of filters does not pay: low-pass first and high-pass later loses up to 1.2 dB against no
filter in mode `paper`, and 6 to 14 dB in `age-aware`, whose gammas were fitted to the whole noise. In
mode `paper` a low-pass all along gains 2 to 3 dB (cutoff 0.35, images; 0.25, videos) and a later switch
(0.7) 0.4 to 3 dB, but with 50 Euler steps that stays 7 to 11 dB behind `age-aware` without a filter.
Gains for each band are within chance of one common gain. The forecast, which takes no filter, is best in
all four columns, by 2 to 6 dB.""",
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
Leave it at `stack`: branches are within 0.9 dB of it, in either direction, and keep 9 times (images) and
15 times (videos) as much. The CPU seconds, of one thread, were taken beside other work and scatter by a
tenth, so they tell no difference.""",
    "guidance": """\
With one gamma for both lanes it makes no difference whether the noise is taken out before or after
guidance, for guidance is linear, as filters are (measured: equal to 0.001 dB); only what bends guidance,
such as a rescaled cfg, would tell them apart. A gamma of each lane's own wins once (3.5 dB; images, 60
%) and is within chance elsewhere. One gamma that is fitted to the guided noise loses everywhere, 0.8 to
3.8 dB. A forecast of the guided output, for which the model would not be run at all at reused steps, is
within chance of the default's forecast of each lane's residual (-0.5 to +0.7 dB) and keeps only latents;
but the present state and whatever changes between the steps then play no part in a reused one.""",
    "constraints": """\
max_consecutive 0 is within 1.5 dB of the best everywhere but on videos at 60 % of 30 steps, where 2 is 3 dB
better; with 50 steps at 60 % (images) and 50 % (videos) longer runs lose 3 to 5 dB. protect_first 3 or 4
changes nothing for images at 50 %, whose plans leave these steps alone by themselves; elsewhere it takes
room away that the plan needs, which costs up to 8 dB with 50 steps and, with 5 or 6, up to 16 dB with 25.
protect_last 2 changes nothing up to 60 %, 3 costs 3 to 4 dB at 60 % on images with dpmpp_2m and with 50
Euler steps, and 0, the default now, gains 2.5 dB at 70 % of 25 steps with dpmpp_2m and changes nothing
elsewhere. Order 1 is 1.5 to 4.6 dB worse than order 2 everywhere but at 70 % of 25 steps, where both
fail.""",
    "room": """\
*Steps to spare*: how many more steps this max_consecutive would allow to reuse. *One more*: with a
max_consecutive greater by one. With none to spare the longer runs win in ten of thirteen cases, by up to
7.5 dB. With one or two to spare the shorter ones win on images in all cases but one, by up to 8 dB, and
on videos in five of ten. With three or more the longer ones never gain more than chance.""",
    "transfer": """\
Profiles may be used elsewhere: of those of other step counts, samplers, schedulers and sizes two lead to
results more than 3 dB below the matching one's (images, 50 %: 50 steps by a profile of 30, and scheduler
normal by one of simple), and as many to ones 3 dB above it. Single prompts differ by 2.5 dB at 50 % and
3.4 dB at 60 %. On videos at 60 % every profile led to the same plan, and so did most on images: half of
the default cost is `reach`, which no profile changes. `age-aware`, which takes its gammas from the profile
too, is within 3 dB of the matching one. `reach` alone is level with a profile at 50 % and up to 8 dB below
it at 60 %; `even` is far below both, and protect_last 3 makes the most of it, but not with the scheduler
karras, whose last steps are short.""",
}
