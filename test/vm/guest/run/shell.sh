#!/bin/sh
# Brings the guest into the state of the demo and gives a shell in it.
/stage/state.sh
echo
echo "You are root in the guest; nothing you do here is kept. exit or poweroff ends it."
exec bash --login
