"""The report: a comparison as one document that answers first and then shows all that the answer rests on.

Here: what a report contains, as sections of blocks, and two renderers of these. Not here: computing a statistic, or
drawing a picture.

Contract: the content is made once (`content.make_document`) and rendered to HTML or to Markdown, so both have the same
sections. Every text may come from others, such as names and error messages, and is escaped where it is rendered, never
before. The HTML is one file that loads nothing.
"""
