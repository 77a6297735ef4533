#!/bin/sh
# Prints the path of a promtool, fetching one if need be; see debian_tool.sh.
exec "$(dirname "$0")/debian_tool.sh" prometheus promtool
