"""The docs site as Markdown, SVG and JSON on disk; mkdocs turns it into HTML."""
