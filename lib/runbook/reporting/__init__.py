"""What a run leaves behind: charts, the HTML report, the archive.

Everything that reaches a report was said by someone else: alert labels, query texts, outputs of a kernel. It is
escaped or sanitised here, and a report never runs a script or asks the network for anything.
"""
