module inferencemodel.dev/devcluster/tools/pause

go 1.26.0

tool inferencemodel.dev/devcluster/tools/pause
