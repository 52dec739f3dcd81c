@export()
@description('One deployment of an image model.')
type imageDeployment = {
  @description('What the app calls it, and what callers may write as "model".')
  @minLength(2)
  @maxLength(64)
  name: string

  @description('Who made the model: OpenAI, "Black Forest Labs", Microsoft.')
  modelFormat: string

  @description('The model, such as gpt-image-2.')
  modelName: string

  @description('Left out: the default version of the model.')
  modelVersion: string?

  @description('Such as GlobalStandard.')
  skuName: string

  @description('Quota: for image models, what the region grants a minute.')
  @minValue(1)
  capacity: int
}
