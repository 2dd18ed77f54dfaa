"""Will compressing gradients make this training job finish sooner, without hurting its accuracy?"""
